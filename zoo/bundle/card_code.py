"""The code of a model card, which runs as it stands once FOLDER and BASE are known.

It needs tokenizers, and transformers, peft or vLLM, and nothing of this project. `READ` makes of a battle the `ids` that
training makes of it; the others ask for its three probabilities.
"""

from __future__ import annotations

from zoo.bundle.asking import Asking

READ = """import json
import re
from pathlib import Path

from tokenizers import Tokenizer

folder = Path(FOLDER)  # the folder that this card is in
asked = json.loads((folder / "prompt.json").read_text())
battle = {"prompt": "What is 2 + 2?", "response_a": "4.", "response_b": "Five, I think."}
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_truncation()
tokenizer.no_padding()


def kept(lengths, shares, room):
    \"\"\"How many tokens each field keeps: its share of the room, and of what shorter ones leave over.\"\"\"
    keep, left = [0] * len(lengths), [i for i, length in enumerate(lengths) if length]
    while left:
        total = sum(shares[i] for i in left)
        part = {i: (shares[i] / total if total > 0 else 1 / len(left)) * room for i in left}
        short = [i for i in left if lengths[i] <= part[i]]
        for i in short or left:
            keep[i] = lengths[i] if short else int(part[i])
        room -= sum(keep[i] for i in short or left)
        if not short:  # what rounding down left goes to the last ones
            for i in reversed(left):
                more = min(room, lengths[i] - keep[i])
                keep[i], room = keep[i] + more, room - more
            break
        left = [i for i in left if i not in short]
    return keep


def cut(ids, n):
    head = n // 2 if asked["keep"] == "both_ends" and n < len(ids) else 0
    return ids[:head] + ids[len(ids) - n + head :]


parts = re.split(r"\\{(prompt|response_a|response_b)\\}", asked["template"])
names = parts[1::2]
parts[1::2] = [battle[name] for name in names]
# Each part by itself, as in training: no token goes over the end of a field.
parts = [tokenizer.encode(part, add_special_tokens=False).ids for part in parts]
shares = dict(zip(["prompt", "response_a", "response_b"], asked["shares"]))
room = asked["max_tokens"] - sum(map(len, parts[0::2]))
lengths = kept([len(ids) for ids in parts[1::2]], [shares[name] for name in names], room)
parts[1::2] = [cut(ids, n) for ids, n in zip(parts[1::2], lengths)]
ids = [token for part in parts for token in part]
"""
_CAUSAL = """model = {load}
with torch.inference_mode():
    logits = model(torch.tensor([ids], device=model.device)).logits[0, -1].float()
probabilities = torch.softmax(logits[asked["label_ids"]], dim=-1).tolist()
print(dict(zip(["a", "b", "tie"], probabilities)))
"""
_WHOLE = 'AutoModelForCausalLM.from_pretrained(folder, dtype="auto"{options})'
_PEFT = """PeftModel.from_pretrained(
    AutoModelForCausalLM.from_pretrained(BASE, dtype="auto"{options}),  # the base's folder or its name on the hub
    folder,
)"""
_NF4 = """, quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,{skip}
    )"""
_CLASSIFIER = """{load}
with torch.inference_mode():
    logits = model(torch.tensor([ids], device=model.device)).logits[0].float()
{softcap}probabilities = torch.softmax(logits, dim=-1).tolist()
print(dict(zip(asked["classes"], probabilities)))
"""
_WHOLE_CLASSIFIER = 'model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="auto"{options})'
_PEFT_CLASSIFIER = """base = AutoModelForSequenceClassification.from_pretrained(
    BASE,  # the base's folder or its name on the hub; that its head is new is said, and the adapter has another
    num_labels=3,
    pad_token_id=asked["pad_token_id"],
    dtype={dtype}{options},
)
{wide}model = PeftModel.from_pretrained(base, folder).eval()"""
_WIDE = "{model}.score.float()  # the head is computed in float32: in 16 bits logits near each other are one\n"
_WIDE_INPUT = "\nmodel.score.register_forward_pre_hook(lambda head, inputs: (inputs[0].float(),))"
_SOFTCAP = """logits = asked["softcap"] * torch.tanh(logits / asked["softcap"])  # which no library applies to a head
"""
_VLLM = """import math

from vllm import LLM, SamplingParams

llm = LLM(str(folder), logprobs_mode="raw_logits", max_model_len=asked["max_tokens"] + 1)
one = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=asked["label_ids"])
(answer,) = llm.generate([{"prompt_token_ids": ids}], one)
logits = [answer.outputs[0].logprobs[0][token].logprob for token in asked["label_ids"]]
weights = [math.exp(logit - max(logits)) for logit in logits]
print(dict(zip(["a", "b", "tie"], (weight / sum(weights) for weight in weights))))
"""
_POOLING = """import math

from vllm import LLM, PoolingParams

llm = LLM(
    str(folder),
    runner="pooling",
    convert="classify",
    hf_overrides={{"architectures": ["{architecture}"], "head_dtype": "float32"}},
    max_model_len=asked["max_tokens"] + 1,
)
raw = PoolingParams(use_activation=False)  # logits, not probabilities
(answer,) = llm.encode([{{"prompt_token_ids": ids}}], raw, pooling_task="classify")
logits = answer.outputs.data.float().tolist()
{softcap}weights = [math.exp(logit - max(logits)) for logit in logits]
print(dict(zip(asked["classes"], (weight / sum(weights) for weight in weights))))
"""
_POOLING_SOFTCAP = """logits = [asked["softcap"] * math.tanh(logit / asked["softcap"]) for logit in logits]
"""


def transformers_code(asking: Asking) -> str:
    """Code that asks for the probabilities of `ids`.

    Whole weights, or with peft an adapter beside its base.
    """
    adapter, classifier = asking.form == "adapter", asking.head == "classifier"
    names = ["AutoModelForSequenceClassification" if classifier else "AutoModelForCausalLM"]
    names += ["BitsAndBytesConfig"] if asking.nf4 else []
    imports = "import torch\n" + ("from peft import PeftModel\n" if adapter else "")
    imports += f"from transformers import {', '.join(names)}\n\n"
    return imports + (_classifier_code(asking, adapter=adapter) if classifier else _causal_code(asking, adapter=adapter))


def _causal_code(asking: Asking, *, adapter: bool) -> str:
    load = _PEFT.format(options=_options(asking)) if adapter else _WHOLE.format(options=_options(asking))
    return _CAUSAL.format(load=load)


def _classifier_code(asking: Asking, *, adapter: bool) -> str:
    wide = "" if asking.encoder else _WIDE.format(model="base" if adapter else "model")  # an encoder is in float32 whole
    if adapter:
        dtype = "torch.float32" if asking.encoder else '"auto"'
        load = _PEFT_CLASSIFIER.format(dtype=dtype, options=_options(asking), wide=wide)
    else:
        load = _WHOLE_CLASSIFIER.format(options=_options(asking)) + f"\n{wide}".rstrip()
    load += _WIDE_INPUT if wide else ""
    return _CLASSIFIER.format(load=load, softcap=_SOFTCAP if asking.softcap else "")


def _options(asking: Asking) -> str:
    """What else `from_pretrained` is told."""
    skip = '\n        llm_int8_skip_modules=["score"],' if asking.head == "classifier" else ""
    return (_NF4.format(skip=skip) if asking.nf4 else "") + (', attn_implementation="eager"' if asking.eager else "")


def vllm_code(asking: Asking) -> str:
    """Code that asks a decoder's whole or quantized weights for the probabilities of `ids`."""
    if asking.head == "labels":
        return _VLLM
    softcap = _POOLING_SOFTCAP if asking.softcap else ""
    return _POOLING.format(architecture=asking.architecture, softcap=softcap)
