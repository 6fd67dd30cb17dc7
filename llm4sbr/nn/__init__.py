"""Pure mathematics: losses, metrics, alignment, fusion and score heads. Nothing here imports Lightning."""
