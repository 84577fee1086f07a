"""How the embedded default is made: text encoder, autoencoder, judge, untrained transformer."""
