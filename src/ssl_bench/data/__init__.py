"""Images in: what each dataset is, where it lies, and which image comes when."""
