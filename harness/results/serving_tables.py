"""The tables of the serving study."""

from __future__ import annotations

from harness.results.columns import Column, Table

_C = Column

_TRIAL_ID = _C("trial_id", "string", "the trial", True)
_TENANTS_FROM = _C("tenants_from", "string", "whether the tenants were trained, or made up with random values")

SERVING = Table(
    name="serving",
    row="one phase of one strategy that serves several tuned models of one base",
    key=("trial_id", "strategy", "tenants", "batch_size", "popularity", "phase"),
    columns=(
        _TRIAL_ID,
        _C("model", "string", "the base", True),
        _C("strategy", "string", "how the tenants are served; all of a trial ran in turn, on the same batches", True),
        _C("method", "string", "method of the tenants; 'mixed': of several", True),
        _C("tenants", "int", "tuned models that are ready to be served", True, minimum=1),
        _C("batch_size", "int", "requests of one batch", True, minimum=1),
        _C(
            "popularity",
            "string",
            "how the requests choose their tenants: in turn, each with the same probability, by Zipf's law, all the "
            "first",
            True,
            choices=("distinct", "uniform", "zipf", "identical"),
        ),
        _C(
            "phase",
            "string",
            "prefill (until every request has its first token), decode (one token more for every request), whole "
            "(until all have their last), swap (make the network ready for the next tenant), load (a tenant from disk)",
            True,
            choices=("prefill", "decode", "whole", "swap", "load"),
        ),
        _C("batch_tenants", "int", "different tenants in the batch", minimum=1),
        _C("prompt_tokens", "int", "tokens of each prompt, virtual ones left out", minimum=1),
        _C("new_tokens", "int", "tokens generated for each request", minimum=1),
        _C("p50_s", "float", "median seconds of the phase; null where the strategy did not run", minimum=0),
        _C("p95_s", "float", "95th percentile of the same", minimum=0),
        _C(
            "tokens_per_s",
            "float",
            "tokens of all requests per second: read in prefill, generated in decode and whole; null in swap and load",
            minimum=0,
        ),
        _C("base_bytes", "int", "weights that all tenants share", minimum=0),
        _C("tenants_bytes", "int", "weights of the tenants, and what is gathered of them for the batch", minimum=0),
        _C("cache_bytes", "int", "keys and values of all requests behind the last token", minimum=0),
        _C("virtual_cache_bytes", "int", "those of prefixes and prompts among them", minimum=0),
        _C("memory_bytes", "int", "the sum of weights and keys and values; without activations", minimum=0),
        _C("energy_j", "float", "median joules of the phase, of the whole GPU or processor; whole alone", minimum=0),
        _C("disturbed", "bool", "whether others had the processors meanwhile; null: not known"),
        _TENANTS_FROM,
        _C("reason", "string", "why the strategy did not run"),
    ),
)

MERGE_FIDELITY = Table(
    name="merge_fidelity",
    row="one tuned model, merged into weights of one format",
    key=("trial_id", "method", "format"),
    columns=(
        _TRIAL_ID,
        _C("model", "string", "the base", True),
        _C("method", "string", "the method whose change is merged", True),
        _C("format", "string", "of the weights behind the merge; the unmerged model has those of its base", True),
        _C("kl", "float", "mean divergence KL(unmerged || merged) of the next token, in nats", minimum=0),
        _C(
            "changed_tokens",
            "float",
            "share of the places at which another next token is likeliest",
            minimum=0,
            maximum=1,
        ),
        _C("changed_answers", "float", "share of the greedy answers that differ anywhere", minimum=0, maximum=1),
        _C("answers", "int", "answers compared", minimum=0),
        _C("places", "int", "places compared", minimum=0),
        _C("weights_bytes", "int", "weights of the merged model", minimum=0),
        _TENANTS_FROM,
    ),
)
