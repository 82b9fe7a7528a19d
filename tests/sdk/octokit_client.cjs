// Lists a repository's issues, page by page, and opens one, with whatever token the environment holds.
const { Octokit } = require("octokit");

async function main() {
  const octokit = new Octokit({ auth: process.env.GITHUB_TOKEN, retry: { enabled: false } });
  const repository = { owner: "acme", repo: "widgets" };
  const issues = await octokit.paginate(octokit.rest.issues.listForRepo, repository);
  console.log("issues:", issues.map((issue) => issue.number).join(", "));
  const opened = await octokit.rest.issues.create({ ...repository, title: "it still squeaks" });
  console.log("opened:", opened.data.title);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
