"""ScanNet++ v2 as downloaded: DSLR and iPhone cameras, masks, mesh and annotation to scene archives."""
