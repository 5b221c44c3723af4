"""Other engines, random inputs and comparisons: how the compiler is held to a reference."""
