"""From one TOML file to `Settings`: read, check, derive keys, write back.

Everything wrong with a file is found in one pass and told with file, line, key and value. Nothing outside this
folder reads the file, and nothing inside it starts, binds or changes anything.
"""
