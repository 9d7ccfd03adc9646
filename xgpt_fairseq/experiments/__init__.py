"""Tables of experiments: their rows run through stage scripts, several seeds each, and compared image by image."""
