"""lm-eval's local-completions against a running server:
lm_eval_client.py URL ATOM MODEL TOKENIZER TEXT TASKS [LIMIT]

MODEL is what the server serves, TOKENIZER a folder with its tokenizer.json, TEXT a text file, TASKS
a folder with piqa.jsonl as `atom eval tasks` reads it. The log-likelihoods that lm-eval gets through
HTTP have to give the accuracies of `atom eval tasks` on the same items; the byte perplexity of the
text is printed."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

PIQA = """task: atom_piqa
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{query}}}}Answer:"
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
"""
ROLLING = """task: atom_text
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: byte_perplexity
"""


def main():
    url, atom, model, tokenizer, text, tasks = sys.argv[1:7]
    limit = int(sys.argv[7]) if len(sys.argv) > 7 else 40
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "piqa.yaml").write_text(PIQA.format(data=Path(tasks, "piqa.jsonl").resolve()))
        (folder / "text.jsonl").write_text(json.dumps(
            {"text": Path(text).read_text(encoding="utf-8")[:8000]}) + "\n")
        (folder / "text.yaml").write_text(ROLLING.format(data=folder / "text.jsonl"))
        results = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={"model": "atom", "base_url": url.rstrip("/") + "/v1/completions",
                        "tokenizer": tokenizer, "tokenizer_backend": "huggingface",
                        "num_concurrent": 8, "max_length": 2048},
            tasks=["atom_piqa", "atom_text"], limit=limit, bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(folder)))["results"]
    through_http = {name: results["atom_piqa"][f"{name},none"] for name in ("acc", "acc_norm")}
    print("lm-eval through the server:", through_http, results["atom_text"])
    direct = json.loads(subprocess.run(
        [atom, "eval", "tasks", model, "--tasks", "piqa", "--data", tasks, "--limit", str(limit),
         "--json"], check=True, capture_output=True).stdout)
    print("atom eval tasks:", json.dumps(direct))
    same = all(abs(direct["tasks"]["piqa"][name] - value) < 1e-9
               for name, value in through_http.items())
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
