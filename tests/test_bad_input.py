"""Bad input of every command: one line that says what, where and what would be right, exit code 2, nothing written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from efficientbert import EfficientBertForSequenceClassification
from efficientbert.__main__ import SCRIPTS
from efficientbert.commands import job_of
from efficientbert.configuration_efficientbert import EfficientBertConfig
from efficientbert.train.cli.command import run_command


COMMANDS = {name: job_of(name) for name in SCRIPTS}
TEXT = "--teacher {model} --corpus {corpus} --student {student} --output_dir {out} --max_length 24 --held_out 8 "
TEXT += "--init_sequences 16 --batch_size 4"
TASK = "--model {model} --data {task} --text_column text"
EXPRESSION = "tanh(linear4_2(gelu(linear4_2(x,wb1)),wb2))"
RIGHT = {  # what a case changes
    "distill": TEXT,
    "embed": TEXT,
    "search": TEXT,
    "compress": "--teacher {model} --corpus {corpus} --max_length 24 --latency 100000 --output_dir {out}",
    "finetune": f"{TASK} --output_dir {{out}} --num_epochs 1 --batch_size 8 --max_length 16",
    "multitask": "--model {model} --tasks {tmp}/mine.yaml --output_dir {out} --batch_size 8",
    "evaluate": f"{TASK} --split train",
    "augment": f"{TASK} --max_length 16 --output_file {{out}}.parquet",
    "convert": "--checkpoint {tmp}/tensors.bin --num_attention_heads 3 --output_dir {out} --ffn_expr " + EXPRESSION,
    "trim": "--model {model} --corpus {corpus} --vocab_size 40 --output_dir {out}",
    "export": "--model {tmp}/ours --output_dir {out} --dtypes float32",
    "push": "--folder {model} --repo_id a/b",
    "benchmark": "--models {student} --rounds 1",
}
TEXT_COMMANDS, TASK_COMMANDS = ("distill", "embed", "search"), ("finetune", "evaluate", "augment")
FILES = {  # by name, what is in it
    "empty": b"",
    "blank": b"\n \n",
    "short.txt": b"word1 word2 word3 word4 word5 word6 word7\n" * 10,
    "latin": "text,label\ncaf\xe9,a\nword1,b\n".encode("latin-1"),
    "cut.jsonl": b'{"text": "word1", "label": "a"}\n{"text": "wor',
    "number.json": b"3",
    "none.json": b"[]",
    "numbers.jsonl": b'{"text": 1, "label": "a"}\n{"text": 2, "label": "b"}\n' * 20,
    "lists.jsonl": b'{"text": ["word1"], "label": "a"}\n{"text": ["word2"], "label": "b"}\n' * 20,
    "nan.jsonl": b'{"text": NaN, "label": NaN}\n' * 20,
    "other.csv": b"body,class\nword1,a\n",
    "header.csv": b"text,label\n",
    "twice.csv": b"text,text,label\nword1,word2,a\nword2,word3,b\n",
    "ragged.csv": b"text,label\n" + b"word1,a\n" * 20 + b"word1,a,x\n",
    "shifted.csv": b"text,label\nword1,a,x\nword2,b,x\n",
    "gap.csv": b"text,label\nword1,a\n,b\nword2,a\n",
    "unlabelled.csv": b"text,label\nword1,a\nword2,\nword2,b\n",
    "one.csv": b"text,label\nword1,a\n",
    "few.csv": b"text,label\nword1,a\nword2,b\n",
    "same.csv": b"text,label\n" + b"word1,a\n" * 9,
    "infinite.jsonl": b"".join(b'{"text": "word%d", "label": 0.5}\n' % index for index in range(9))
    + b'{"text": "word9", "label": Infinity}\n',
    "mixed.jsonl": b'{"text": "word1", "label": "0"}\n{"text": "word1", "label": 1}\n',
    "objects.jsonl": b'{"text": "word1", "label": {"a": 1}}\n' * 9,
    "cut.parquet": b"PAR1xxxxPAR1",
    "image.png": b"x",
    "list.json": b"[]",
    "torn.json": b"{",
    "null.json": b"null",
    "wide.json": b'{"hidden_size": 19, "num_attention_heads": 3}',
    "negative.json": b'{"hidden_size": -1}',
    "infinite.json": b'{"hidden_size": Infinity}',
    "text.json": b'{"hidden_size": "18"}',
    "layers.json": b'{"num_hidden_layers": 0}',
    "deep.json": b'{"hidden_size": 18, "num_hidden_layers": 5, "num_attention_heads": 3}',
    "expressions.json": b'{"ffn_expressions": 3}',
    "invalid.json": b'{"ffn_expressions": "linear2(linear1(x))"}',
    "blind.json": b'{"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3, "attention_heads": [0, 0]}',
    "blinded.json": b'{"hidden_size": 24, "num_hidden_layers": 2, "attention_heads": [-1, 0]}',
    "heads.json": b'{"hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 2}',
    "garbage.bin": b"\x80\x04garbage",
    "mine.yaml": b"data: {task}\ntext_column: text\n",
    "nokey.yaml": b"datum: x\n",
    "latin.yaml": "data: caf\xe9".encode("latin-1"),
    "torn.yaml": b"data: [",
    "list.yaml": b"- data",
    "twice.yaml": b"data: a\ndata: b\n",
}
MODELS = {  # by folder, what is changed in a copy of a good model: a field of its config.json, or a file
    "headless": ("num_attention_heads", 0),
    "layerless": ("num_hidden_layers", 0),
    "wide": ("hidden_size", 48),
    "narrow_vocabulary": ("vocab_size", 10),
    "unknown_type": ("model_type", "mars"),
    "text_size": ("hidden_size", "24"),
    "unknown_activation": ("hidden_act", "mars"),
    "deeper": ("num_hidden_layers", 9),
    "cut_weights": ("model.safetensors", "half"),
    "no_weights": ("model.safetensors", None),
    "cut_config": ("config.json", "half"),
    "list_config": ("config.json", "[]"),
    "null_config": ("config.json", "null"),
    "no_config": ("config.json", None),
    "config_is_a_folder": ("config.json", "folder"),
    "config_is_a_dead_link": ("config.json", "link"),
    "cut_tokenizer": ("tokenizer.json", "half"),
    "no_tokenizer": ("tokenizer.json", None),
    "list_tokenizer": ("tokenizer_config.json", "[]"),
}
BAD_MODELS = {
    "headless": "cannot be loaded: integer modulo by zero",
    "layerless": r"has 0 layers; it must have at least 1|has no num_hidden_layers",
    "wide": r"has shape \(24,\) in the checkpoint but \(48,\) by its config.json",
    "narrow_vocabulary": "has shape|65 tokens but its vocabulary 10 rows",
    "unknown_type": "cannot be loaded: .*model type `mars`",
    "text_size": "'hidden_size' expected int, got str",
    "unknown_activation": "cannot be loaded: no 'mars' is known",
    "deeper": "lacks 80 weights, such as|no trained masked-LM head",
    "cut_weights": "cannot be loaded: Error while deserializing header",
    "no_weights": "cannot be loaded: Error no file named model.safetensors",
    "cut_config": "(cannot be loaded|no tokenizer): .*not a valid JSON file",
    "list_config": "(cannot be loaded|no tokenizer): ",
    "null_config": "(cannot be loaded|no tokenizer): ",
    "no_config": "Should have a `model_type` key|cannot be loaded",
    "config_is_a_folder": "Should have a `model_type` key|cannot be loaded",
    "config_is_a_dead_link": "Should have a `model_type` key|cannot be loaded",
    "cut_tokenizer": "no tokenizer: Expecting",
    "no_tokenizer": "no tokenizer: ",
    "list_tokenizer": "no tokenizer: ",
}
BAD_CORPORA = {
    "empty.txt": "is empty",
    "short.txt": "gives 10 sequences, too few: at least 24",
    "blank.txt": "gives 0 sequences, too few: at least",
    "latin.txt": "is not UTF-8; save it as UTF-8",
    "latin.csv": "is not UTF-8; save it as UTF-8",
    "cut.jsonl": "cannot be loaded: JSON parse error",
    "number.json": "cannot be loaded: JSON parse error",
    "none.json": "split 'train' is empty",
    "numbers.jsonl": "row 0: 'text' is 1, not a text",
    "lists.jsonl": r"row 0: 'text' is \['word1'\], not a text",
    "nan.jsonl": "row 0: 'text' is nan, not a text",
    "other.csv": "no column 'text'; it has 'body', 'class'",
    "twice.csv": "column 'text' stands twice; give each column a name of its own",
    "ragged.csv": "cannot be loaded: Error tokenizing data",
    "cut.parquet": "is no whole parquet file",
    "image.png": "unknown kind of file; known are .txt",
    "gone.txt": "does not exist",
    "folder": "doesn't contain any data files",
    "link.txt": "does not exist",
    "*.none": "no file matches",
}
BAD_DATA = {
    **{name: said for name, said in BAD_CORPORA.items() if name not in ("blank.txt", "short.txt")},
    "empty.csv": "is empty",
    "blank.txt": "split 'train' is empty|no column 'label'",
    "nan.jsonl": "row 0: 'label' is missing, as in 20 of 20 rows",
    "numbers.jsonl": "row 0: 'text' is 1, not a text",
    "lists.jsonl": r"row 0: 'text' is \['word1'\], not a text",
    "header.csv": "split 'train' is empty",
    "shifted.csv": "row 0 has more fields than the file has columns",
    "gap.csv": "row 1: 'text' is None, not a text",
    "unlabelled.csv": "row 1: 'label' is missing, as in 1 of 3 rows; label these rows or remove them",
    "mixed.jsonl": "row 1: 'label' is a number, 1, but a text, '0', in row 0; write all as one type",
}
BAD_STUDENTS = {
    "list.json": "config '.*list.json': ",
    "torn.json": "config '.*torn.json': ",
    "null.json": "config '.*null.json': ",
    "empty.json": "config '.*empty.json': ",
    "latin.json": "config '.*latin.json': ",
    "wide.json": "must be a multiple of num_attention_heads",
    "negative.json": "config '.*negative.json': .*must be positive, not -1",
    "infinite.json": "'hidden_size' expected int, got float",
    "text.json": "'hidden_size' expected int, got str",
    "layers.json": "'num_hidden_layers': ValueError: must be positive, not 0",
    "expressions.json": "Field 'ffn_expressions' with value 3",
    "invalid.json": "directly on",
    "blind.json": "student: no layer has attention, which losses compare; use --losses hidden_states",
    "blinded.json": "'attention_heads': ValueError: must be at least 0, not -1",
    "heads.json": "2 attention heads but teacher .* has 3",
    "deep.json": "4 layers, fewer than the student's 5",
    "gone.json": "config '.*gone.json': .*|no preset, config.json or checkpoint",
    "folder": "no preset, config.json or checkpoint",
    "torn": "no preset, config.json or checkpoint",
}
EVERYWHERE = ("finetune", "multitask", *TEXT_COMMANDS)  # commands with an output folder and a training
BAD_TRAINING = {
    "--output_dir /": "is the root; name a folder in it",
    "--output_dir {tmp}/empty.txt": "is a file; choose another --output_dir",
    "--output_dir {tmp}/empty.txt/out": "cannot be made: '.*empty.txt' is no folder",
    "--output_dir {tmp}/link.txt/out": "cannot be made: '.*link.txt' is no folder",
    "--output_dir {model}": "is not empty; choose another --output_dir or empty it",
    "--output_dir {tmp}": "is not empty; choose another --output_dir or empty it",
    "--output_dir /proc/none/out": "cannot be made",
    f"--output_dir {'x' * 300}": "is no path: .*File name too long.*; choose another",
    "--output_dir a\0b": "is no path: embedded null byte; choose another",
    "--output_dir ''": "--output_dir: must be text, not ''",
    "--batch_size 0": "batch_size: must be at least 1, not 0",
    "--batch_size 1000000000000": "to train on|too few",
    "--seed -1": "seed: must be between 0 and 4294967295, not -1",
    "--seed 4294967296": "seed: must be between 0 and 4294967295, not 4294967296",
    "--learning_rate 0": "learning_rate: must be above 0, not 0",
    "--learning_rate nan": "--learning_rate: must be a number, not 'nan'",
    "--max_grad_norm -1": "max_grad_norm: must be above 0, not -1",
    "--max_grad_norm 0": "max_grad_norm: must be above 0, not 0",
    "--weight_decay -1": "weight_decay: must be at least 0, not -1",
    "--warmup_ratio 2": "warmup_ratio: must be between 0 and 1, not 2",
    "--mixed_precision fp8": "mixed_precision: must be no, bf16 or fp16, not 'fp8'",
    "--device mars": "device 'mars': is not here",
    "--checkpoint_steps 0": "checkpoint_steps: must be at least 1, not 0",
}
BAD_WORDS = [
    *(("distill", words, said) for words, said in (
        ("--losses hidden_states=inf", "the weight of 'hidden_states' must be a number above 0, not 'inf'"),
        ("--losses hidden_states=-1", "the weight of 'hidden_states' must be a number above 0, not '-1'"),
        ("--losses love", "unknown loss 'love'"),
        ("--layer_map 9 9", "layer_map"),
        ("--max_length 7", "max_length: must be between 8 and the 64 tokens"),
        ("--max_length 100000", "max_length: must be between 8 and the 64 tokens"),
        ("--max_steps -1", "max_steps: must be at least 0, not -1"),
        ("--text_column body", "no column 'body'; it has 'text'"),
        ("--corpus_split mars", "Unknown split \"mars\""),
        ("--corpus_split train[:0]", "split 'train\\[:0\\]' is empty"),
        ("--initialization magic", "initialization: must be teacher or random"),
        ("--teacher {deberta}", "'deberta-v2' cannot be captured"),
        ("--student {model}", "is a checkpoint of model type 'bert'"),
        ("--teacher efficientbert-tiny", "is a preset, which has no weights"),
    )),
    *(("finetune", words, said) for words, said in (
        ("--losses hidden_states=inf", "the weight of 'hidden_states' must be a number above 0, not 'inf'"),
        ("--seeds 1 1", r"seeds: must be different numbers, not \[1, 1\]"),
        ("--seeds 1 -1", "seeds: must be between 0 and 4294967295, not -1"),
        ("--max_length 7", "max_length: must be at least 8, not 7"),
        ("--num_epochs 0", "num_epochs: must be above 0, not 0"),
        ("--max_steps 0", "max_steps: must be at least 1, not 0"),
        ("--label_weight nan", "--label_weight: must be a number, not 'nan'"),
        ("--label_weight 0.5", "label_weight, temperature: are for learning from a --teacher, and there is none"),
        ("--selection 1", "selection: must be at least 0 and below 1, not 1"),
        ("--selection 0.001", "selection: 0.001 of 56 training rows leaves no rows on one side"),
        ("--task glue", "task 'glue': unknown; known are cola"),
        ("--kind poems", "kind 'poems': unknown; known are text-classification"),
        ("--metric mars", "metric 'mars': "),
        ("--metric squad", "metric 'squad': cannot be computed"),
        ("--problem mars", "problem 'mars': unknown; known are single_label"),
        ("--problem multi_label", "are no lists, but what is predicted is several labels a row"),
        ("--problem regression", "row 0: label 'yes' is no finite number"),
        ("--text_column body", "no column 'body'; it has 'text', 'label'"),
        ("--label_column class", "no column 'class'; it has 'text', 'label'"),
        ("--label_column text", "column 'text' is named for two things; name different ones"),
        ("--text_pair_column text", "column 'text' is named for two things; name different ones"),
        ("--train_split mars", "Unknown split \"mars\". Should be one of \\['train'\\]"),
        ("--train_split train[", "Unrecognized instruction format: train\\["),
        ("--train_split train[:-500] --eval_split none", "split 'train\\[:-500\\]' is empty"),
        ("--train_split train[:-5]", "eval_split: '.*' has no split 'validation' to score; give --eval_split"),
        ("--eval_split train[:0]", "split 'train\\[:0\\]' is empty"),
        ("--eval_split mars", "Unknown split \"mars\""),
        ("--data ''", "--data: must be text, not ''"),
        ("--data {tmp}/one.csv", "all rows have the label 'a'; two classes at least must be there"),
        ("--data {tmp}/same.csv", "all rows have the label 'a'; two classes at least must be there"),
        ("--data {tmp}/few.csv", "batch_size: 8 rows make a batch, but there are 1 to train on in '.*'; lower it"),
        ("--data {tmp}/infinite.jsonl", "row 9: label inf is no finite number"),
        ("--data {tmp}/objects.jsonl", "labels in column 'label' are"),
        ("--teacher {model}", "has no trained head; fine-tune it with `efficientbert finetune`"),
        ("--teacher {tmp}/several", "predicts no classes of the task's kind; the task's are 'no', 'yes'"),
        ("--teacher {tmp}/others", "has labels 'east', 'west'; the task's are 'no', 'yes'"),
        ("--teacher {tmp}/foreign", "has another tokenizer than the student"),
        ("--augmented_data {tmp}/gone.parquet", "augmented_data '.*gone.parquet': does not exist"),
        ("--model efficientbert-tiny", "is a preset, which has no weights"),
        ("{tmp}/nokey.yaml", "line 1: unknown argument 'datum'"),
        ("{tmp}/latin.yaml", "recipe '.*latin.yaml': cannot be read"),
        ("{tmp}/torn.yaml", "recipe '.*torn.yaml': cannot be read"),
        ("{tmp}/list.yaml", "must hold one argument per line"),
        ("{tmp}/twice.yaml", "line 2: 'data' stands twice"),
        ("{tmp}/gone.yaml", "recipe '.*gone.yaml': does not exist"),
    )),
    *(("evaluate", words, said) for words, said in (
        ("", "has no trained head for the task; `efficientbert finetune --model"),
        ("--model {tmp}/folder", "is neither a model nor holds folders of fine-tuned models"),
        ("--model {tmp}/others", "label 'yes' is not among 'east', 'west'"),
        ("--model {tmp}/several", "are no lists, but what is predicted is several labels a row"),
        ("--model {tmp}/several --task sst2", "sst2 has one class a row .*the model predicts several"),
        ("--model {tmp}/others --kind question-answering", "has no trained head for the task"),
        ("--model {tmp}/others --split held", "Unknown split \"held\""),
        ("--batch_size 0", "batch_size: must be at least 1, not 0"),
        ("--bootstrap -1", "bootstrap: must be at least 0, not -1"),
        ("--output_json {tmp}/none/x.json", "output_json .*: its folder does not exist"),
        ("--model {tmp}/others --update_card", "has no model card README.md to update"),
    )),
    *(("augment", words, said) for words, said in (
        ("", "has no trained masked-LM head"),
        ("--output_file {tmp}/x.csv", "must end in .parquet"),
        ("--copies 0", "copies: must be at least 1, not 0"),
        ("--replace_probability 2", "replace_probability: must be above 0 and at most 1, not 2"),
        ("--output_file {tmp}/cut.parquet", "exists, and is no augmented data; choose another"),
        ("--output_file {tmp}/folder.parquet", "exists, and is no augmented data; choose another"),
        ("--output_file {tmp}/empty.txt/x.parquet", "is no folder"),
        ("--split mars", "Unknown split \"mars\""),
        ("--kind question-answering", "kind: only text-classification can be augmented"),
    )),
    *(("multitask", words, said) for words, said in (
        ("--tasks mars", "tasks: 'mars' is neither a known task"),
        ("--tasks {tmp}/gone.yaml", "recipe '.*gone.yaml': does not exist"),
        ("--tasks {tmp}/nokey.yaml", "line 1: unknown argument 'datum'"),
        ("--teachers a b", "teachers: 2 for 1 tasks; give one for each with --teachers"),
        ("--names a b", "names: 2 for 1 tasks; give one for each with --names"),
        ("--names a/b", "is no plain name of a folder"),
        ("--names encoder", "is what the run itself writes"),
        ("--sampling 2", "sampling: must be between 0 and 1, not 2"),
        ("", "is of model type 'bert'; it must be an EfficientBERT"),
    )),
    *(("search", words, said) for words, said in (
        ("--budgets parameters=nan:", "budgets|budget"),
        ("--budgets parameters=2:1", "is empty"),
        ("--budgets mars=1:2", "unknown metric 'mars'"),
        ("--budgets parameters", "must be METRIC=LEAST:MOST"),
        ("--budgets parameters=:500", "no architecture has parameters"),
        ("--sampler taste", "sampler: must be random"),
        ("--stages 4", "stages: must be some of 1 2 3"),
        ("--objectives flops", "objectives: must be loss, then others"),
        ("--scores mars", "scores: must be some of"),
        ("--num_candidates 0", "num_candidates: must be above 0, not 0"),
        ("--tasks {tmp}/mine.yaml", "task_teachers: candidates learn tasks from teachers"),
        ("--storage study.db", "must be the URL of a database"),
        ("--task_epochs 2", r"task_epochs: is for --tasks that stages 1 and 2 train on \(--scores short\)"),
        ("--task_split train[:9]", "task_split: is for --tasks, and there are none"),
        ("--task_held_out 0.5", "task_held_out: is for --tasks that candidates are trained on, and there are none"),
        ("--tasks rte --task_teachers a/b --task_steps 9 --stages 1 2", r"task_steps: is for --tasks that stage 3"),
        ("--tasks rte --scores probe --task_batch_size 2", "task_batch_size: is for --tasks that"),
        ("--depths 0", "depths"),
        ("--hidden_sizes -18", "hidden_sizes"),
    )),
    *(("convert", words, said) for words, said in (
        ("--checkpoint {tmp}/gone.bin", "cannot be read: No such file or directory"),
        ("--checkpoint {tmp}/folder", "cannot be read: Is a directory"),
        ("--checkpoint {tmp}/empty.txt", "is no file of plain tensors written by torch.save"),
        ("--checkpoint {tmp}/garbage.bin", "is no file of plain tensors written by torch.save"),
        ("--checkpoint {tmp}/numbers.bin", "'a' in its state dict is no floating-point tensor"),
        ("", "has no embeddings.token_embeddings.weight"),
        ("--ffn_expr x", "linear1 must stand in it exactly once"),
        ("--ffn_expr mars(x)", "'mars' is not in the release's notation"),
        ("--task mars", "--task 'mars': unknown; known are"),
        ("--output_dir /", "is the root; name a folder in it"),
        ("--output_dir {model}", "is not empty"),
    )),
    *(("push", words, said) for words, said in (
        ("--folder {tmp}/gone", "does not exist"),
        ("--folder {tmp}/empty.txt", "does not exist"),
        ("--folder {tmp}/folder", "has no config.json"),
        ("", "has no configuration_efficientbert.py"),
        ("--repo_id name", "must have the form user/name"),
        ("--repo_id a/b/c", "repo_id 'a/b/c': "),
        ("--repo_id ''", "--repo_id: must be text, not ''"),
    )),
    *(("compress", words, said) for words, said in (
        ("", "latency: the teacher itself takes .* ms here, no more than 100000"),
        ("--latency 0", "latency: must be a number above 0, not 0"),
        ("--latency nan", "--latency: must be a number, not .nan."),
        ("--size -1", "size: must be a number above 0, not -1"),
        ("--hours 0", "hours: must be a number above 0, not 0"),
        ("--runtime tpu", "runtime: unknown 'tpu'; known are onnx, onnx-int8"),
        ("--threads 0", "threads: must be at least 1, not 0"),
        ("--seed -1", "seed: must be between 0 and"),
        ("--output_dir /", "output folder '/': is the root"),
        ("--max_length 65", "max_length: must be between 8 and the 64 tokens of teacher"),
        ("--corpus_column body", "no column 'body'"),
        ("--data {task} --text_column text", "is a bare encoder, which predicts nothing for --data"),
        ("--teacher {tmp}/others", "is for text-classification; give --data with texts for it"),
        ("--teacher {tmp}/others --data {task}", "text_column: must name the column of the text"),
        ("--teacher {tmp}/others --data {tmp}/gone.csv", "data '.*gone.csv': does not exist"),
        ("--teacher {tmp}/others --data {task} --text_column body", "no column 'body'"),
        ("--task rre", "task 'rre': unknown; known are"),
    )),
    *(("export", words, said) for words, said in (
        ("--model {model}", "is a bert; models of efficientbert are exported"),
        ("--model {tmp}/gone", "model '.*gone': cannot be loaded: there is no such file or folder"),
        ("--model {tmp}/folder", "model '.*folder': cannot be loaded"),
        ("--dtypes int4", "dtypes: unknown 'int4'; known are float32, float16, int8"),
        ("--reduce_range maybe", "reduce_range"),
        ("--data {tmp}/gone.csv", "data '.*gone.csv': does not exist"),
        ("--data {tmp}/empty.csv --text_column text --split train", "is empty"),
        ("--data {task} --text_column body --split train", "no column 'body'"),
        ("--data {task} --text_column text --split train --train_split mars", "mars"),
        ("--output_dir /", "output folder '/': is the root"),
        ("--output_dir {model}", "is not empty"),
    )),
    *(("benchmark", words, said) for words, said in (
        ("--models {tmp}/gone", "model '.*gone': cannot be found"),
        ("--models {tmp}/folder", "model '.*folder': "),
        ("--models {tmp}/torn.json", "model '.*torn.json': "),
        ("--models {tmp}/negative.json", "model '.*negative.json': cannot be read: "),
        ("--rounds 0", "--rounds 0: must be positive"),
        ("--batch_sizes 1 1", "must be positive and different"),
        ("--sequence_length 0", "must be positive"),
        ("--dtype int8", "--dtype 'int8': unknown; known are"),
        ("--runtimes mars", "--runtimes 'mars': unknown; known are eager, compile, onnx, onnx-int8"),
        ("--output_json {tmp}/none/x.json", "cannot be written there"),
        ("--output_json {tmp}/folder", "cannot be written there"),
    )),
]  # fmt: skip
CASES = [
    *((command, f"--corpus {{tmp}}/{name}", said) for name, said in BAD_CORPORA.items() for command in ("distill",)),
    *((command, f"--corpus {{tmp}}/{name}", BAD_CORPORA[name]) for name in ("gone.txt", "latin.txt", "cut.jsonl")
      for command in ("embed", "search", "compress")),
    *(("finetune", f"--data {{tmp}}/{name}", said) for name, said in BAD_DATA.items()),
    *(("augment", f"--data {{tmp}}/{name}", BAD_DATA[name])
      for name in ("empty.csv", "gap.csv", "twice.csv", "folder")),
    *(("evaluate", f"--model {{tmp}}/others --data {{tmp}}/{name}", BAD_DATA[name])
      for name in ("empty.csv", "gap.csv", "unlabelled.csv", "twice.csv", "folder")),
    *(("distill", f"--student {{tmp}}/{name}", said) for name, said in BAD_STUDENTS.items()),
    *((command, f"--student {{tmp}}/{name}", BAD_STUDENTS[name]) for name in ("torn.json", "layers.json")
      for command in ("embed", "search")),
    *((command, f"--teacher {{tmp}}/{name}", said) for name, said in BAD_MODELS.items() for command in ("distill",)),
    *((command, f"--teacher {{tmp}}/{name}", BAD_MODELS[name]) for name in ("layerless", "cut_weights", "no_config")
      for command in ("embed", "compress")),
    *((command, f"--model {{tmp}}/{name}", said) for name, said in BAD_MODELS.items()
      for command in ("finetune", "augment")),
    *((command, words, said) for words, said in BAD_TRAINING.items() for command in ("finetune", "distill")),
    *((command, words, BAD_TRAINING[words]) for words in ("--output_dir /", "--seed -1", "--max_grad_norm -1")
      for command in EVERYWHERE),
    *BAD_WORDS,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(teacher_folder, corpus_file, student_file, task_file, tmp_path_factory) -> Path:
    """All files and models of the cases."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tmp = tmp_path_factory.mktemp("bad")
    for name, content in FILES.items():
        ends = (".txt", ".csv", ".json") if "." not in name else ("",)
        for end in ends:
            content = content.replace(b"{task}", task_file.encode())
            (tmp / f"{name}{end}").write_bytes(content)
    (tmp / "folder").mkdir()
    (tmp / "folder" / "README.md").write_text("# Nothing\n", encoding="utf-8")
    (tmp / "folder.parquet").mkdir()
    EfficientBertConfig.from_json_file(student_file).save_pretrained(tmp / "torn")
    (tmp / "torn" / "model.safetensors").write_bytes(b"cut off")
    (tmp / "link.txt").symlink_to("nowhere.txt")
    torch.save({"x": torch.ones(2)}, tmp / "tensors.bin")
    torch.save({"a": 3}, tmp / "numbers.bin")
    for name, (what, value) in MODELS.items():
        shutil.copytree(teacher_folder(), tmp / name)
        damage(tmp / name, what, value)
    sizes = {"vocab_size": 65, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    for name, names, problem in (
        ("several", ["no", "yes"], "multi_label_classification"),
        ("others", ["east", "west"], None),
        ("foreign", ["no", "yes"], None),
    ):
        config = BertConfig(**sizes, intermediate_size=8, id2label=dict(enumerate(names)), problem_type=problem)
        BertForSequenceClassification(config).save_pretrained(tmp / name)
        AutoTokenizer.from_pretrained(teacher_folder("roberta" if name == "foreign" else "bert")).save_pretrained(
            tmp / name
        )
    ours = EfficientBertConfig.from_json_file(student_file)
    ours.vocab_size, ours.id2label, ours.label2id = 65, {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    EfficientBertForSequenceClassification(ours).save_pretrained(tmp / "ours")
    AutoTokenizer.from_pretrained(teacher_folder()).save_pretrained(tmp / "ours")
    return tmp


def damage(model: Path, what: str, value: object) -> None:
    """Spoils a file of a model's folder, or a field of its config.json."""
    file = model / what
    if "." not in what:
        config = model / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {what: value}), encoding="utf-8")
    elif value == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
        if value == "folder":
            file.mkdir()
        elif value == "link":
            file.symlink_to("nowhere")
        elif value is not None:
            file.write_text(value, encoding="utf-8")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """All below a folder, with sizes and times of change."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def words_of(command: str, changes: str, values: dict[str, object]) -> list[str]:
    """A right command line with changes: flags of the same name, which win, or a recipe in front."""
    flags = [word.format(**values).replace("''", "") for word in RIGHT[command].split()]
    changed = [word.format(**values).replace("''", "") for word in changes.split(" ")] if changes else []
    return [*changed, *flags] if changed and changed[0].endswith((".yaml", ".yml")) else [*flags, *changed]


@pytest.mark.parametrize(("command", "changes", "said"), CASES)
def test_bad_input(command, changes, said, folder, teacher_folder, corpus_file, student_file, task_file, tmp_path,
                   monkeypatch, capsys):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    values = {"tmp": folder, "model": teacher_folder(), "corpus": corpus_file, "student": student_file}
    values |= {"task": task_file, "out": tmp_path / "results" / "out", "deberta": "{deberta}"}
    if "{deberta}" in changes:
        values["deberta"] = teacher_folder("deberta")
    places = (folder, tmp_path, Path(teacher_folder()))
    before = [tree(place) for place in places]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_command(*COMMANDS[command], command, words_of(command, changes, values))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2
    assert last.startswith(f"efficientbert {command}: error: ") and len(last) < 900
    assert re.search(said, last), last
    assert [tree(place) for place in places] == before


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_interrupt_is_one_line(command, monkeypatch, capsys):
    """ctrl-C anywhere in a command."""

    def main(args):
        os.kill(os.getpid(), signal.SIGINT)

    main.__module__ = COMMANDS[command][0].__module__
    words = [word.format(**dict.fromkeys(("tmp", "model", "corpus", "student", "task", "out"), "x")) for word in
             RIGHT[command].split()]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        run_command(main, COMMANDS[command][1], command, words)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 130
    assert line.startswith(f"efficientbert {command}: interrupted; start the same command again")


PRINTS = """
from efficientbert.train.cli.command import run_command
from efficientbert.train.push import PushArguments
run_command(print, PushArguments, "push", ["--folder", "f", "--repo_id", "a/b"])
"""


def test_a_closed_pipe_ends_a_command_without_a_word():
    """`efficientbert ... | head`: the reader is gone before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-c", PRINTS], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")
