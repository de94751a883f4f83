"""The embedded WavLM made smaller by what its diagnosis prescribes, and held against the original on unheard voices."""
