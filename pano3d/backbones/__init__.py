"""Reconstruction backbones behind one interface (`base.Backbone`): MUSt3R and Pi3."""
