"""All that is private to transformers: attention masks, cache rows, recorded attention, the support check, version differences.

From outside: `interface`, `masks`, `cache`, `recorder` and `support.check_supported`. Nothing else in bitune touches
transformers' internals; tests/modeling/test_contract_transformers.py fails loudly when one of them changes.
"""
