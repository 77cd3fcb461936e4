"""lm-eval's local-completions against a running server:
lm_eval_client.py URL ATOM MODEL TOKENIZER WIKITEXT TASKS [ITEMS [DOCUMENTS]]

MODEL is what the server serves, TOKENIZER a folder with its tokenizer.json, WIKITEXT the raw test
set of WikiText-2 or its beginning, TASKS a folder with piqa.jsonl as `atom eval tasks` reads it. What
lm-eval makes of the log-likelihoods that it gets through HTTP has to be what `atom eval` says:
  piqa      the accuracies of `atom eval tasks` on the same items
  wikitext  the word perplexity, from the sums of `atom eval ppl --rolling` over the same documents"""

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

MAX_LENGTH = 2048  # of a request; two less is what predicts a window
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
# lm-eval's own task, but for where its documents come from.
WIKITEXT = """task: atom_wikitext
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: !function preprocess_wikitext.wikitext_detokenizer
process_results: !function preprocess_wikitext.process_results
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""


def documents(wikitext, count):
    """The articles, each from its title on."""
    pages = re.split(r"(?m)^(?= = [^=\n]+ = $)", Path(wikitext).read_text(encoding="utf-8"))
    return [{"page": page} for page in pages if page.strip()][:count]


def direct_json(atom, *arguments):
    return json.loads(subprocess.run([atom, "eval", *map(str, arguments), "--json"], check=True,
                                     capture_output=True).stdout)


def direct_word_perplexity(atom, model, docs, folder):
    sys.path.append(str(folder))
    import preprocess_wikitext  # pylint: disable=import-outside-toplevel,import-error
    likelihood = words = 0
    for doc in docs:
        text = folder / "document.txt"
        text.write_text(preprocess_wikitext.wikitext_detokenizer(doc), encoding="utf-8")
        likelihood += direct_json(atom, "ppl", model, "--text", text, "--rolling",
                                  "--context", MAX_LENGTH - 2)["log_likelihood"]
        words += preprocess_wikitext.process_results(doc, [0.0])["word_perplexity"][1]
    return math.exp(-likelihood / words)


def main():
    url, atom, model, tokenizer, wikitext, tasks = sys.argv[1:7]
    items = int(sys.argv[7]) if len(sys.argv) > 7 else 40
    docs = documents(wikitext, int(sys.argv[8]) if len(sys.argv) > 8 else 3)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "piqa.yaml").write_text(PIQA.format(data=Path(tasks, "piqa.jsonl").resolve()))
        (folder / "wikitext.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        (folder / "wikitext.yaml").write_text(WIKITEXT.format(data=folder / "wikitext.jsonl"))
        shutil.copy(Path(lm_eval.__file__).parent / "tasks/wikitext/preprocess_wikitext.py", folder)
        results = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={"model": "atom", "base_url": url.rstrip("/") + "/v1/completions",
                        "tokenizer": tokenizer, "tokenizer_backend": "huggingface",
                        "num_concurrent": 8, "max_length": MAX_LENGTH},
            tasks=["atom_piqa", "atom_wikitext"], limit=items, bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(folder)))["results"]
        perplexity = direct_word_perplexity(atom, model, docs, folder)
    direct = direct_json(atom, "tasks", model, "--tasks", "piqa", "--data", tasks, "--limit",
                         items)["tasks"]["piqa"]
    same = True
    for task, name, ours in (("atom_piqa", "acc", direct["acc"]),
                             ("atom_piqa", "acc_norm", direct["acc_norm"]),
                             ("atom_wikitext", "word_perplexity", perplexity)):
        theirs = results[task][f"{name},none"]
        print(f"{task} {name}: {theirs} through the server, {ours} by atom eval")
        same &= math.isclose(theirs, ours, rel_tol=1e-4)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
