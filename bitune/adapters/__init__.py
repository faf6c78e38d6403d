"""All that is private to PEFT: configs for a base, the layers it makes, and which adapter runs on which row of a batch.

From outside: `manager.AdapterManager`, one for each base, and `kinds` for configs. Nothing else in bitune touches PEFT's layers;
tests/adapters/test_contract_peft.py fails loudly when one of its switches changes.
"""
