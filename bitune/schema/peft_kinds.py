"""The PEFT kinds that can be trained, and the rank they have by default: names that the command line shows without importing PEFT."""

PEFT_KINDS = ("lora", "dora", "ia3")
RANK = 8
