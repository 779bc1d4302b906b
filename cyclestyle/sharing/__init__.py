"""The models of this package in other forms: exported files, and translators on the Hugging Face Hub."""
