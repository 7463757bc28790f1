"""Reads the balance transactions of a simulator through Stripe's own SDK, over all pages.

Run with stripe 16: `stripe_check.py URL TOKEN`. Prints the rows read as JSON.
"""

import json
import sys

import stripe


def main(url, token):
    """Read them, plainly and with the filters that a revenue report needs."""
    transactions = stripe.StripeClient(token, base_addresses={"api": url}).v1.balance_transactions
    rows = list(transactions.list({"limit": 5}).auto_paging_iter())
    charges = list(transactions.list({"limit": 100, "type": "charge"}).auto_paging_iter())
    newer = rows[len(rows) // 2].created if rows else 0
    since = list(transactions.list({"limit": 3, "created": {"gte": newer}}).auto_paging_iter())
    if any(row.net != row.amount - row.fee for row in rows) or any(row.created < newer for row in since):
        raise SystemExit(1)
    sys.stdout.write(json.dumps({"rows": len(rows), "charges": len(charges), "newer half": len(since)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
