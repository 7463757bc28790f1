"""Reads the cost and usage reports of a simulator through Anthropic's own SDK, replies validated strictly.

Run with anthropic >= 2.10: `anthropic_check.py URL ADMIN_KEY DAYS`. Prints the rows read by route as JSON.
The SDK has models for the two analytics routes; the two older reports go through its transport and its paging,
against models written here from the reference.
"""

import json
import sys
from datetime import UTC, datetime, timedelta

import anthropic
from anthropic import BaseModel, Omit
from anthropic._base_client import make_request_options
from anthropic.pagination import SyncReportPageCursor


class CostRow(BaseModel):
    """One row of the cost report; amount is cents."""

    amount: str
    currency: str
    context_window: str | None
    cost_type: str | None
    description: str | None
    inference_geo: str | None
    model: str | None
    service_tier: str | None
    token_type: str | None
    workspace_id: str | None


class CacheCreation(BaseModel):
    """Tokens written to the cache."""

    ephemeral_1h_input_tokens: int
    ephemeral_5m_input_tokens: int


class Searches(BaseModel):
    """Use of server tools."""

    web_search_requests: int


class UsageRow(BaseModel):
    """One row of the usage report."""

    uncached_input_tokens: int
    cache_creation: CacheCreation
    cache_read_input_tokens: int
    output_tokens: int
    server_tool_use: Searches
    account_id: str | None
    api_key_id: str | None
    context_window: str | None
    inference_geo: str | None
    model: str | None
    service_account_id: str | None
    service_tier: str | None
    workspace_id: str | None


class CostBucket(BaseModel):
    """One day."""

    starting_at: datetime
    ending_at: datetime
    results: list[CostRow]


class UsageBucket(BaseModel):
    """One bucket of use."""

    starting_at: datetime
    ending_at: datetime
    results: list[UsageRow]


def report(client, path, bucket, **query):
    """Count the rows over all pages; empty buckets hold none."""
    options = make_request_options(query=query, extra_headers=client.extra)
    page = client.get_api_list(
        f"/v1/organizations/{path}", model=bucket, page=SyncReportPageCursor[bucket], options=options
    )
    return sum(len(each.results) for each in page)


def main(url, admin_key, days):
    """Read them all, in both header styles."""
    client = anthropic.Anthropic(api_key=admin_key, base_url=url, max_retries=0, _strict_response_validation=True)
    now = datetime.now(UTC)
    since = (now - timedelta(days=int(days))).strftime("%Y-%m-%dT00:00:00Z")
    month = {"starting_at": now - timedelta(days=30), "ending_at": now}
    older = {"x-api-key": admin_key, "anthropic-version": "2023-06-01", "Authorization": Omit()}
    read = {}
    for style, headers in (("bearer", {}), ("x-api-key", older)):
        client.extra = headers
        for groups in ([], ["description"], ["workspace_id", "description"]):
            key = f"cost {groups} {style}"
            read[key] = report(client, "cost_report", CostBucket, starting_at=since, limit=7, **{"group_by[]": groups})
        for width, start in (("1d", since), ("1h", since), ("1m", now.strftime("%Y-%m-%dT00:00:00Z"))):
            query = {"starting_at": start, "bucket_width": width, "group_by[]": ["model", "service_tier"]}
            read[f"usage {width} {style}"] = report(client, "usage_report/messages", UsageBucket, **query)
    analytics = client.beta.organization.analytics
    for name, resource in (("cost", analytics.cost), ("usage", analytics.usage)):
        for more in ({}, {"group_by": ["model"]}, {"group_by": ["model"], "time_bucket_width": "1h", "limit": 100}):
            read[f"analytics {name} {more}"] = len(list(resource.list(**month, **more)))
    sys.stdout.write(json.dumps(read))


if __name__ == "__main__":
    main(*sys.argv[1:])
