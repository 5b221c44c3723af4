"""aotc compiles a model to one native object file and one C header."""
