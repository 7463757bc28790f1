"""Reads every route of a simulator through Kalshi's own SDK, over all pages; exits 1 when a model refuses a row.

Run with kalshi-python-sync 3.34.0: `kalshi_check.py URL KEY_ID KEYFILE`. Prints the rows read by route as JSON.
"""

import json
import sys
from pathlib import Path

import kalshi_python_sync as kalshi


def rows(method, field, **query):
    """Count what every page of one route holds."""
    total, cursor = 0, None
    while True:
        page = method(cursor=cursor, **query)
        total += len(getattr(page, field) or [])
        cursor = page.cursor
        if not cursor:
            return total


def main(url, key_id, key_file):
    """Read them all."""
    settings = kalshi.Configuration(host=url)
    settings.api_key_id = key_id
    settings.private_key_pem = Path(key_file).read_text()
    client = kalshi.KalshiClient(settings)
    portfolio, market = kalshi.PortfolioApi(client), kalshi.MarketApi(client)
    archive, exchange, account = kalshi.HistoricalApi(client), kalshi.ExchangeApi(client), kalshi.AccountApi(client)
    read = {
        "fills": rows(portfolio.get_fills, "fills", limit=1000),
        "positions": rows(portfolio.get_positions, "market_positions", limit=1000),
        "positions, all": rows(portfolio.get_positions, "market_positions", limit=100, settlement_status="all"),
        "settlements": rows(portfolio.get_settlements, "settlements", limit=1000),
        "deposits": rows(portfolio.get_deposits, "deposits", limit=500),
        "withdrawals": rows(portfolio.get_withdrawals, "withdrawals", limit=500),
        "orders": rows(kalshi.OrdersApi(client).get_orders, "orders", limit=1000),
        "markets": rows(market.get_markets, "markets", limit=1000),
        "archived fills": rows(archive.get_fills_historical, "fills", limit=1000),
        "archived positions": rows(archive.get_historical_positions, "market_positions", limit=1000),
        "archived markets": rows(archive.get_historical_markets, "markets", limit=1000),
    }
    ticker = market.get_markets(limit=1).markets[0].ticker
    read["one market"] = len([market.get_market(ticker)])
    if read["archived markets"]:
        ticker = archive.get_historical_markets(limit=1).markets[0].ticker
        read["one archived market"] = len([archive.get_historical_market(ticker)])
    single = (
        portfolio.get_balance,
        archive.get_historical_cutoff,
        exchange.get_exchange_status,
        exchange.get_user_data_timestamp,
        account.get_account_api_limits,
        account.get_account_endpoint_costs,
    )
    read["single replies"] = len([method() for method in single])
    sys.stdout.write(json.dumps(read))


if __name__ == "__main__":
    main(*sys.argv[1:])
