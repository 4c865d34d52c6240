"""The stages: `run(request, out_dir) -> StageResult` each, in a process of its own.

This package is the only place for torch, transformers, peft, bitsandbytes, awq, vllm and fitted scikit-learn models. Which
function runs which stage stands in `zoo/pipeline/stage_table.py`.
"""
