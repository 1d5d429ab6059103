"""Language: pretrained encoders and causal language models, fine-tuning, retrieval, generated text."""
