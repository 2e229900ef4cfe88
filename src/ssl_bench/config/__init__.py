"""From conf/ and the command line to one checked configuration: the only importer of Hydra and OmegaConf; no torch."""
