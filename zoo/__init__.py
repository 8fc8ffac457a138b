"""What both zoos share and no framework knows: the catalogue of nets and the layer table."""
