"""Typed configuration: the keys are those of the YAML files in conf/."""
