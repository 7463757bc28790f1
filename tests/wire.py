"""One good row of each kind as the upstreams send it; a test changes the field that it is about."""

FILL = {
    "fill_id": "f-1",
    "ticker": "KXTEST-26DEC31-A",
    "outcome_side": "yes",
    "book_side": "bid",
    "count_fp": "10.00",
    "yes_price_dollars": "0.5200",
    "fee_cost": "0.017500",
    "is_taker": True,
    "created_time": "2026-11-22T06:29:30.164956Z",
}
SETTLEMENT = {
    "ticker": "KXTEST-26NOV01-B",
    "event_ticker": "KXTEST-26NOV01",
    "market_result": "yes",
    "yes_count_fp": "39.00",
    "yes_total_cost_dollars": "16.260000",
    "no_count_fp": "17.00",
    "no_total_cost_dollars": "14.450000",
    "revenue": 2200,
    "fee_cost": "0.000000",
    "value": 100,
    "settled_time": "2026-11-17T11:06:40.000000Z",
}
DEAL = {
    "id": "deal-1",
    "amount": "1200.50",
    "currency": "USD",
    "status": "won",
    "closed_date": "2026-11-01",
    "updated_at": "2026-11-02T10:00:00Z",
    "description": "Forecast feed",
}
SONNET = {
    "model": "claude-sonnet-5-5",
    "service_tier": "standard",
    "inference_geo": "global",
    "uncached_input_tokens": 1_000_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 200_000, "ephemeral_1h_input_tokens": 0},
    "cache_read_input_tokens": 3_000_000,
    "output_tokens": 100_000,
    "server_tool_use": {"web_search_requests": 0},
}
