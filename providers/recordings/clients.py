"""How each template's requests are made: by the vendor's own client, or by curl as the vendor's documentation has it.

Every function runs in a process of its own, with the template's variables set. What it answers does not matter, and most
clients fail on the empty object that they get.
"""

import os

CLIENTS = {}


def sdk(name, package):
    """Registers a client of a PyPI package for a template."""

    def register(run):
        CLIENTS[name] = {"package": package, "run": run}
        return run

    return register


def key(variable):
    return os.environ[variable]


# Language models and their neighbours.


@sdk("openai", "openai")
def openai():
    from openai import OpenAI

    OpenAI(max_retries=0).chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])


@sdk("anthropic", "anthropic")
def anthropic():
    from anthropic import Anthropic

    Anthropic(max_retries=0).messages.create(model="claude", max_tokens=1, messages=[{"role": "user", "content": "hi"}])


@sdk("gemini", "google-genai")
def gemini():
    from google import genai

    client = genai.Client()
    client.models.generate_content(model="gemini-2.5-flash", contents="hi")


@sdk("mistral", "mistralai")
def mistral():
    try:
        from mistralai import Mistral
    except ImportError:
        from mistralai.client import Mistral

    Mistral(api_key=key("MISTRAL_API_KEY")).chat.complete(model="mistral-small", messages=[{"role": "user", "content": "hi"}])


@sdk("groq", "groq")
def groq():
    from groq import Groq

    Groq(max_retries=0).models.list()


@sdk("cohere", "cohere")
def cohere():
    import cohere as vendor

    vendor.ClientV2(api_key=key("COHERE_API_KEY")).chat(model="command-a", messages=[{"role": "user", "content": "hi"}])


def compatible(name, variable, base_url):
    """A vendor whose documentation names the client of OpenAI with a base URL of its own."""

    def run():
        from openai import OpenAI

        OpenAI(api_key=key(variable), base_url=base_url, max_retries=0).models.list()

    sdk(name, "openai")(run)


compatible("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com")
compatible("xai", "XAI_API_KEY", "https://api.x.ai/v1")
compatible("nvidia", "NVIDIA_API_KEY", "https://integrate.api.nvidia.com/v1")
compatible("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1")
compatible("moonshot", "MOONSHOT_API_KEY", "https://api.moonshot.ai/v1")
compatible("sambanova", "SAMBANOVA_API_KEY", "https://api.sambanova.ai/v1")


@sdk("azure-openai", "openai")
def azure_openai():
    from openai import AzureOpenAI

    client = AzureOpenAI(azure_endpoint="https://acme.openai.azure.com", api_version="2025-04-01-preview", max_retries=0)
    client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])


@sdk("together", "together")
def together():
    from together import Together

    client = Together(max_retries=0)
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


@sdk("fireworks", "fireworks-ai")
def fireworks():
    from fireworks import Fireworks

    Fireworks(max_retries=0).chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


@sdk("perplexity", "perplexityai")
def perplexity():
    from perplexity import Perplexity

    Perplexity(max_retries=0).chat.completions.create(model="sonar", messages=[{"role": "user", "content": "hi"}])


@sdk("replicate", "replicate")
def replicate():
    import replicate as vendor

    vendor.models.get("meta/llama")


@sdk("huggingface", "huggingface_hub")
def huggingface():
    from huggingface_hub import HfApi

    HfApi().whoami()


@sdk("voyage", "voyageai")
def voyage():
    import voyageai

    voyageai.Client(max_retries=0).embed(["hi"], model="voyage-3.5")


@sdk("cerebras", "cerebras_cloud_sdk")
def cerebras():
    from cerebras.cloud.sdk import Cerebras

    Cerebras(max_retries=0, warm_tcp_connection=False).models.list()


@sdk("ai21", "ai21")
def ai21():
    from ai21 import AI21Client
    from ai21.models.chat import ChatMessage

    AI21Client().chat.completions.create(model="jamba-mini", messages=[ChatMessage(role="user", content="hi")])


@sdk("elevenlabs", "elevenlabs")
def elevenlabs():
    from elevenlabs.client import ElevenLabs

    ElevenLabs().voices.get_all()


@sdk("deepgram", "deepgram-sdk")
def deepgram():
    from deepgram import DeepgramClient

    DeepgramClient().manage.v1.projects.list()


@sdk("assemblyai", "assemblyai")
def assemblyai():
    import assemblyai as vendor

    vendor.Transcriber().submit("https://example.com/a.mp3")


@sdk("langsmith", "langsmith")
def langsmith():
    from langsmith import Client

    list(Client().list_datasets(limit=1))


@sdk("langfuse", "langfuse")
def langfuse():
    from langfuse import Langfuse

    Langfuse().auth_check()


# Code hosts and registries.


@sdk("github", "PyGithub")
def github():
    from github import Auth, Github

    Github(auth=Auth.Token(key("GITHUB_TOKEN"))).get_user().login


@sdk("gitlab", "python-gitlab")
def gitlab():
    import gitlab as vendor

    vendor.Gitlab(private_token=key("GITLAB_TOKEN")).projects.list()


@sdk("bitbucket", "atlassian-python-api")
def bitbucket():
    from atlassian.bitbucket import Cloud

    Cloud(token=key("BITBUCKET_ACCESS_TOKEN"), cloud=True).workspaces.get("acme")


@sdk("cloudflare", "cloudflare")
def cloudflare():
    from cloudflare import Cloudflare

    list(Cloudflare(max_retries=0).zones.list())


@sdk("digitalocean", "pydo")
def digitalocean():
    from pydo import Client

    Client(token=key("DIGITALOCEAN_TOKEN")).droplets.list()


@sdk("hetzner", "hcloud")
def hetzner():
    from hcloud import Client

    Client(token=key("HCLOUD_TOKEN")).servers.get_list()


@sdk("linode", "linode_api4")
def linode():
    from linode_api4 import LinodeClient

    LinodeClient(key("LINODE_TOKEN")).profile()


@sdk("heroku", "heroku3")
def heroku():
    import heroku3

    heroku3.from_key(key("HEROKU_API_KEY")).apps()


@sdk("scaleway", "scaleway")
def scaleway():
    from scaleway import Client
    from scaleway.instance.v1 import InstanceV1API

    client = Client(
        access_key="SCWXXXXXXXXXXXXXXXXX",
        secret_key=key("SCW_SECRET_KEY"),
        default_project_id="11111111-1111-4111-8111-111111111111",
        default_zone="fr-par-1",
        default_region="fr-par",
    )
    InstanceV1API(client).list_servers(zone="fr-par-1")


# Payments.


@sdk("stripe", "stripe")
def stripe():
    import stripe as vendor

    # It trusts a bundle of its own.
    vendor.ca_bundle_path = os.environ["RECORDER_CA"]
    vendor.StripeClient(key("STRIPE_API_KEY")).v1.charges.list()


@sdk("adyen", "Adyen")
def adyen():
    import Adyen

    client = Adyen.Adyen(xapikey=key("ADYEN_API_KEY"), platform="test")
    client.checkout.payments_api.payment_methods({"merchantAccount": "Acme"})


@sdk("square", "squareup")
def square():
    from square import Square

    Square(token=key("SQUARE_TOKEN")).locations.list()


@sdk("paddle", "paddle-python-sdk")
def paddle():
    from paddle_billing import Client

    Client(key("PADDLE_API_KEY")).event_types.list()


@sdk("mollie", "mollie-api-python")
def mollie():
    try:
        from mollie.api.client import Client

        client = Client()
        client.set_api_key(key("MOLLIE_API_KEY"))
        client.payments.list()
    except ImportError:
        from mollie import ClientSDK, Security

        ClientSDK(security=Security(api_key=key("MOLLIE_API_KEY"))).payments.list()


@sdk("razorpay", "razorpay")
def razorpay():
    import razorpay as vendor

    client = vendor.Client(auth=(key("RAZORPAY_KEY_ID"), key("RAZORPAY_KEY_SECRET")))
    # It trusts a bundle of its own.
    client.cert_path = os.environ["RECORDER_CA"]
    client.order.all()


# Messages.


@sdk("slack", "slack_sdk")
def slack():
    from slack_sdk import WebClient

    WebClient(token=key("SLACK_BOT_TOKEN")).auth_test()


@sdk("discord", "discord.py")
def discord():
    import asyncio

    import discord as vendor

    async def login():
        await vendor.Client(intents=vendor.Intents.default()).login(key("DISCORD_TOKEN"))

    asyncio.run(login())


@sdk("sendgrid", "sendgrid")
def sendgrid():
    from sendgrid import SendGridAPIClient

    SendGridAPIClient(key("SENDGRID_API_KEY")).client.scopes.get()


@sdk("twilio", "twilio")
def twilio():
    from twilio.rest import Client

    Client("AC00000000000000000000000000000000", key("TWILIO_AUTH_TOKEN")).messages.list(limit=1)


@sdk("mailgun", "mailgun")
def mailgun():
    from mailgun.client import Client

    Client(auth=("api", key("MAILGUN_API_KEY"))).messages.create(data={"from": "a@acme.example"}, domain="acme.example")


@sdk("postmark", "postmarker")
def postmark():
    from postmarker.core import PostmarkClient

    PostmarkClient(server_token=key("POSTMARK_SERVER_TOKEN")).emails.send(
        From="a@acme.example", To="b@acme.example", Subject="s", TextBody="t"
    )


@sdk("resend", "resend")
def resend():
    import resend as vendor

    vendor.Emails.send({"from": "a@acme.example", "to": ["b@acme.example"], "subject": "s", "text": "t"})


@sdk("mailchimp", "mailchimp-marketing")
def mailchimp():
    from mailchimp_marketing import Client

    client = Client()
    client.set_config({"api_key": key("MAILCHIMP_API_KEY"), "server": "us1"})
    client.ping.get()


@sdk("brevo", "brevo-python")
def brevo():
    from brevo import Brevo

    Brevo(api_key=key("BREVO_API_KEY")).account.get_account()


@sdk("intercom", "python-intercom")
def intercom():
    from intercom import Intercom

    Intercom(token=key("INTERCOM_API_KEY")).admins.list()


@sdk("telnyx", "telnyx")
def telnyx():
    from telnyx import Telnyx

    Telnyx(max_retries=0).balance.retrieve()


@sdk("plivo", "plivo")
def plivo():
    from plivo import RestClient

    RestClient("MA000000000000000000", key("PLIVO_AUTH_TOKEN")).messages.list()


@sdk("mailjet", "mailjet-rest")
def mailjet():
    from mailjet_rest import Client

    Client(auth=(key("MJ_APIKEY_PUBLIC"), key("MJ_APIKEY_PRIVATE")), version="v3.1").send.create(data={"Messages": []})


@sdk("klaviyo", "klaviyo-api")
def klaviyo():
    from klaviyo_api import KlaviyoAPI

    KlaviyoAPI(key("KLAVIYO_API_KEY"), max_retries=0).Accounts.get_accounts()


# Data.


@sdk("pinecone", "pinecone")
def pinecone():
    from pinecone import Pinecone

    list(Pinecone().list_indexes())


@sdk("weaviate", "weaviate-client")
def weaviate():
    import weaviate as vendor
    from weaviate.classes.init import Auth

    vendor.connect_to_weaviate_cloud(
        "https://acme.c0.europe-west3.gcp.weaviate.cloud", Auth.api_key(key("WEAVIATE_API_KEY")), skip_init_checks=True
    ).collections.list_all()


@sdk("qdrant", "qdrant-client")
def qdrant():
    from qdrant_client import QdrantClient

    QdrantClient(
        url="https://acme.eu-central.aws.cloud.qdrant.io", api_key=key("QDRANT_API_KEY"), check_compatibility=False
    ).get_collections()


@sdk("upstash", "upstash-redis")
def upstash():
    from upstash_redis import Redis

    os.environ["UPSTASH_REDIS_REST_URL"] = "https://acme-1.upstash.io"
    Redis.from_env(rest_retries=0, allow_telemetry=False).get("a")


@sdk("neon", "neon-api")
def neon():
    from neon_api import NeonAPI

    NeonAPI.from_environ().me()


@sdk("airtable", "pyairtable")
def airtable():
    from pyairtable import Api

    Api(key("AIRTABLE_API_KEY")).table("app00000000000000", "Things").first()


# Search and the web.


@sdk("algolia", "algoliasearch")
def algolia():
    from algoliasearch.search.client import SearchClientSync

    SearchClientSync("ACMEAPPID0", key("ALGOLIA_API_KEY")).list_indices()


@sdk("tavily", "tavily-python")
def tavily():
    from tavily import TavilyClient

    TavilyClient().search("hi")


@sdk("exa", "exa-py")
def exa():
    from exa_py import Exa

    Exa().search("hi")


@sdk("serpapi", "google-search-results")
def serpapi():
    from serpapi import GoogleSearch

    GoogleSearch({"q": "coffee", "api_key": key("SERPAPI_API_KEY")}).get_dict()


@sdk("firecrawl", "firecrawl-py")
def firecrawl():
    from firecrawl import Firecrawl

    Firecrawl().scrape("https://example.com")


# Tools of work.


@sdk("notion", "notion-client")
def notion():
    from notion_client import Client

    Client(auth=key("NOTION_API_KEY")).users.me()


@sdk("atlassian", "jira")
def atlassian():
    from jira import JIRA

    options = {"server": "https://acme.atlassian.net"}
    JIRA(options, basic_auth=("agent@acme.example", key("JIRA_API_TOKEN")), max_retries=0, get_server_info=False).myself()


@sdk("asana", "asana")
def asana():
    import asana as vendor

    configuration = vendor.Configuration()
    configuration.access_token = key("ASANA_ACCESS_TOKEN")
    vendor.UsersApi(vendor.ApiClient(configuration)).get_user("me", {})


@sdk("hubspot", "hubspot-api-client")
def hubspot():
    from hubspot import HubSpot

    HubSpot(access_token=key("HUBSPOT_ACCESS_TOKEN")).crm.contacts.basic_api.get_page(limit=1)


@sdk("zendesk", "zenpy")
def zendesk():
    from zenpy import Zenpy

    Zenpy(subdomain="acme", email="agent@acme.example", token=key("ZENDESK_API_TOKEN")).users.me()


@sdk("monday", "monday")
def monday():
    from monday import MondayClient

    MondayClient(key("MONDAY_API_TOKEN")).me.get_details()


@sdk("trello", "py-trello")
def trello():
    from trello import TrelloClient

    TrelloClient(api_key=key("TRELLO_API_KEY"), token=key("TRELLO_TOKEN")).list_boards()


@sdk("todoist", "todoist-api-python")
def todoist():
    from todoist_api_python.api import TodoistAPI

    client = TodoistAPI(key("TODOIST_API_TOKEN"))
    next(client.get_projects())


@sdk("shopify", "ShopifyAPI")
def shopify():
    import shopify as vendor

    vendor.ShopifyResource.activate_session(vendor.Session("acme.myshopify.com", "2025-01", key("SHOPIFY_ACCESS_TOKEN")))
    vendor.Shop.current()


# Seeing what happens.


@sdk("datadog", "datadog-api-client")
def datadog():
    from datadog_api_client import ApiClient, Configuration
    from datadog_api_client.v1.api.monitors_api import MonitorsApi

    MonitorsApi(ApiClient(Configuration())).list_monitors()


@sdk("honeycomb", "libhoney")
def honeycomb():
    import libhoney

    libhoney.init(writekey=key("HONEYCOMB_API_KEY"), dataset="acme")
    event = libhoney.new_event({"a": 1})
    event.send()
    libhoney.close()


@sdk("pagerduty", "pagerduty")
def pagerduty():
    import pagerduty as vendor

    vendor.RestApiV2Client(key("PAGERDUTY_API_KEY")).rget("/users/me")


@sdk("posthog", "posthog")
def posthog():
    from posthog import Posthog

    client = Posthog("phc_public", host="https://us.i.posthog.com", personal_api_key=key("POSTHOG_PERSONAL_API_KEY"))
    client.load_feature_flags()


@sdk("segment", "segment-analytics-python")
def segment():
    import segment.analytics as vendor

    vendor.write_key = key("SEGMENT_WRITE_KEY")
    vendor.sync_mode = True
    vendor.track("user", "event")


@sdk("rollbar", "rollbar")
def rollbar():
    import rollbar as vendor

    vendor.init(key("ROLLBAR_ACCESS_TOKEN"), environment="test", handler="blocking")
    vendor.report_message("hi")


@sdk("opsgenie", "opsgenie-sdk")
def opsgenie():
    import opsgenie_sdk

    configuration = opsgenie_sdk.Configuration()
    configuration.api_key["Authorization"] = key("OPSGENIE_API_KEY")
    opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration)).list_alerts()


def shell(name, by, command):
    CLIENTS[name] = {"by": by, "shell": command}


def curl(name, arguments):
    """A request as the vendor's documentation has it."""
    program = 'curl -sS --connect-to "::127.0.0.1:$RECORDER_PORT"'
    shell(name, "curl, after the vendor's documentation", f"{program} {arguments}")


curl("stability", '-H "Authorization: Bearer $STABILITY_API_KEY" https://api.stability.ai/v1/user/account')
curl(
    "jina",
    '-H "Authorization: Bearer $JINA_API_KEY" -H "Content-Type: application/json" '
    '-d \'{"url":"https://example.com"}\' https://r.jina.ai/',
)
curl("gitea", '-H "Authorization: token $GITEA_TOKEN" https://gitea.com/api/v1/user')
curl("codeberg", '-H "Authorization: token $CODEBERG_TOKEN" https://codeberg.org/api/v1/user')
curl("rubygems", '-H "Authorization: $GEM_HOST_API_KEY" https://rubygems.org/api/v1/gems.json')
curl("circleci", '-H "Circle-Token: $CIRCLE_TOKEN" https://circleci.com/api/v2/me')
curl("buildkite", '-H "Authorization: Bearer $BUILDKITE_API_TOKEN" https://api.buildkite.com/v2/organizations')
curl(
    "terraform-cloud",
    '-H "Authorization: Bearer $TFE_TOKEN" -H "Content-Type: application/vnd.api+json" '
    "https://app.terraform.io/api/v2/organizations",
)
curl("vultr", '-H "Authorization: Bearer $VULTR_API_KEY" https://api.vultr.com/v2/account')
curl("vercel", '-H "Authorization: Bearer $VERCEL_TOKEN" https://api.vercel.com/v9/projects')
curl("netlify", '-H "Authorization: Bearer $NETLIFY_AUTH_TOKEN" https://api.netlify.com/api/v1/sites')
curl("fly", '-H "Authorization: Bearer $FLY_API_TOKEN" "https://api.machines.dev/v1/apps?org_slug=personal"')
curl("render", '-H "Authorization: Bearer $RENDER_API_KEY" https://api.render.com/v1/services')
curl("supabase", '-H "Authorization: Bearer $SUPABASE_ACCESS_TOKEN" https://api.supabase.com/v1/projects')
curl(
    "railway",
    '-H "Authorization: Bearer $RAILWAY_API_TOKEN" -H "Content-Type: application/json" '
    '-d \'{"query":"query { me { name } }"}\' https://backboard.railway.com/graphql/v2',
)
curl("lemonsqueezy", '-H "Authorization: Bearer $LEMONSQUEEZY_API_KEY" https://api.lemonsqueezy.com/v1/users/me')
curl(
    "planetscale",
    '-H "Authorization: $PLANETSCALE_SERVICE_TOKEN_ID:$PLANETSCALE_SERVICE_TOKEN" https://api.planetscale.com/v1/organizations',
)
curl("turso", '-H "Authorization: Bearer $TURSO_API_TOKEN" https://api.turso.tech/v1/organizations')
curl("brave-search", '-H "X-Subscription-Token: $BRAVE_API_KEY" "https://api.search.brave.com/res/v1/web/search?q=brave"')
curl(
    "serper",
    '-H "X-API-KEY: $SERPER_API_KEY" -H "Content-Type: application/json" -d \'{"q":"apple"}\' https://google.serper.dev/search',
)
curl("clickup", '-H "Authorization: $CLICKUP_API_TOKEN" https://api.clickup.com/api/v2/user')
curl("linear", '-H "Authorization: $LINEAR_API_KEY" -d \'{"query":"{ viewer { id } }"}\' https://api.linear.app/graphql')
curl("figma", '-H "X-Figma-Token: $FIGMA_TOKEN" https://api.figma.com/v1/me')
curl("sentry", '-H "Authorization: Bearer $SENTRY_AUTH_TOKEN" https://us.sentry.io/api/0/organizations/')
curl(
    "grafana-cloud",
    '-H "Authorization: Bearer $GRAFANA_CLOUD_ACCESS_POLICY_TOKEN" https://grafana.com/api/v1/accesspolicies',
)
curl(
    "new-relic",
    '-H "API-Key: $NEW_RELIC_API_KEY" -H "Content-Type: application/json" '
    '-d \'{"query":"{ requestContext { userId } }"}\' https://api.newrelic.com/graphql',
)
curl(
    "mixpanel",
    '-u "$MIXPANEL_SERVICE_ACCOUNT_USERNAME:$MIXPANEL_SERVICE_ACCOUNT_SECRET" https://mixpanel.com/api/app/me',
)
curl("axiom", '-H "Authorization: Bearer $AXIOM_TOKEN" https://api.axiom.co/v2/datasets')
curl("launchdarkly", '-H "Authorization: $LAUNCHDARKLY_ACCESS_TOKEN" https://app.launchdarkly.com/api/v2/projects')
# Its client for Python speaks through a library that no socket leads.
curl("apify", '-H "Authorization: Bearer $APIFY_TOKEN" https://api.apify.com/v2/actor-runs')
