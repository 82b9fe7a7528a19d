//! The binary's commands: the handle of a test as lines of text.

use serde_json::json;

use crate::{Action, Call, KmsDouble, VersionState};

/// Obeys one line of the README's table, and gives the answer's line.
pub async fn obey(double: &KmsDouble, line: &str) -> String {
    match answer(double, line).await {
        Ok(answer) => answer,
        Err(reason) => format!("error {reason}"),
    }
}

async fn answer(double: &KmsDouble, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["fault", call, action] => set_fault(double, call, action, None)?,
        ["fault", call, action, times] => {
            let times = times.strip_prefix('x').and_then(|times| times.parse().ok());
            set_fault(double, call, action, Some(times.ok_or("times are xN")?))?;
        }
        ["clear"] => double.clear(),
        ["state", version, state] => {
            let state = match *state {
                "enabled" => VersionState::Enabled,
                "disabled" => VersionState::Disabled,
                "destroyed" => VersionState::Destroyed,
                _ => return Err(format!("no state {state:?}")),
            };
            double.set_state(version, state)?;
        }
        ["requests"] => return Ok(double.requests().len().to_string()),
        ["requests", call] => return Ok(double.count(call.parse()?).to_string()),
        ["log"] => {
            let requests = double.requests();
            let calls = requests
                .iter()
                .map(|request| json!({ "call": request.call.name(), "name": request.name }));
            return Ok(json!(calls.collect::<Vec<_>>()).to_string());
        }
        ["forget"] => double.forget(),
        ["down"] => double.down().await,
        ["up"] => double.up().map_err(|error| error.to_string())?,
        _ => return Err(format!("no command {line:?}")),
    }
    Ok("ok".to_owned())
}

fn set_fault(
    double: &KmsDouble,
    call: &str,
    action: &str,
    times: Option<u32>,
) -> Result<(), String> {
    let action: Action = action.parse()?;
    let call: Option<Call> = match call {
        "any" => None,
        call => Some(call.parse()?),
    };
    double.service().faults.lock().set(call, action, times);
    Ok(())
}
