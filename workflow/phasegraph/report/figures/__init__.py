"""One module per figure; each has one public function, ``draw(study)``, and is named as in the catalogue."""
