"""Makes a charge with whatever key the environment holds."""

import os

import stripe

stripe.api_key = os.environ["STRIPE_API_KEY"]
stripe.max_network_retries = 0
# This SDK brings its own roots and reads no variable for them, so it is told.
stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
charge = stripe.Charge.create(amount=4200, currency="usd", source="tok_visa")
print("charge:", charge.id, charge.amount)
