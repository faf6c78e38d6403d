"""Data: JSON Lines files and Hub data sets as records, the texts of a prompt and its answer, their token ids, batches.

For use from outside: `load_examples`, `tokenize_all`, `to_measure`, `split_validation`, `Collator`, `pad_left`, `PromptTemplate`,
`prompt_ids`, `render_chat`.
Nothing here knows a model; it imports `bitune.errors`, `bitune.files` and `bitune.schema` alone.
"""
