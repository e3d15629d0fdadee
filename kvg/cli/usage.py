"""The commands of ``kvg``, and its help."""

COMMANDS = {
    "fit": "train a stage",
    "validate": "measure a model on the validation set",
    "test": "write a model's answers to the test sets to predictions.jsonl, and measure them",
    "predict": "write them, without measuring",
    "doctor": "check a fit before it starts: box convention, special tokens, names, lengths, rewards of groups",
    "plan": "show the memory that a training needs on each GPU, and whether it fits",
    "ground": "find one entity on a picture, a folder of pictures, or a list; needs no config",
    "app": "the same in a browser, with the boxes as the text quotes them, and models beside each other",
    "export": "write a checkpoint, adapters or a model as a Hugging Face folder with a model card",
}
OWN_OPTIONS = ("doctor", "plan", "ground", "app", "export")  # commands whose files have a parser
USAGE = """usage: kvg {fit,validate,test,predict,doctor} -c CONFIG [-c CONFIG ...] [--KEY VALUE ...]
       kvg plan -c CONFIG [-c CONFIG ...] [--KEY VALUE ...]
       kvg ground PICTURE NAME --checkpoint RUN/export
       kvg app --checkpoint RUN/export
       kvg export CHECKPOINT --out FOLDER

%(commands)s

Configs are overlays, merged from left to right: the stage first, then backbone, data and strategy. A path that
starts with configs/ also names a config shipped with the package. Any setting can be given as --KEY VALUE.

  kvg fit -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.train runs/data/train
  kvg fit -c configs/experiment/qwen2_vl_7b_cot_sft.yaml --data.train cot-sft.json
  kvg test -c configs/stage/cot_sft.yaml -c configs/backbone/lab.yaml --data.test runs/data/test
  kvg fit -c configs/stage/cot_sft.yaml --print_config     the merged settings
  kvg fit --help                                           every setting (takes some seconds)

An interrupted fit (Ctrl-C) saves a checkpoint and prints how to resume; --ckpt_path last resumes from the newest one.
A folder that holds a run is an error, unless the fit resumes from its checkpoint or --overwrite is given.

Errors in the settings end with exit code 2. All other commands are in kvg-data.
"""
