"""Link to bytes to picture to scores to verdict to kept original, and the ledger of it all."""
