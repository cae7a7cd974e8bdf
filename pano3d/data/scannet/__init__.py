"""ScanNet v2 as downloaded: RGB-D streams, meshes, annotation and label map to scene archives."""
