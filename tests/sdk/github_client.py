"""Lists a repository's issues, page by page, and opens one, with whatever token the environment holds."""

import os

from github import Auth, Github

with Github(auth=Auth.Token(os.environ["GITHUB_TOKEN"]), retry=None, timeout=30) as client:
    repository = client.get_repo("acme/widgets")
    print("issues:", [issue.number for issue in repository.get_issues(state="open")])
    print("opened:", repository.create_issue(title="it still squeaks").title)
