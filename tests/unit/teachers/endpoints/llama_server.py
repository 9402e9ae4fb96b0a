"""Serves the packaged SmolLM2-135M-Instruct with llama.cpp's own server: a real endpoint.

Prints its address, then serves until its standard input closes, so that no server outlives a test.
"""

import sys


def main() -> None:
    import xllamacpp

    from rarealert.language.packaged import packaged_file

    params = xllamacpp.CommonParams()
    params.model.path = str(packaged_file("smollm2-135m-instruct"))
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 1  # more threads wait for each other on a busy machine
    params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
