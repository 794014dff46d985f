"""The fast path on CPUs: a whole decoder step in one call of a small compiled library (kernels/).

library.py   compiles kernels/ for this CPU, once, and loads it
structs.py   the structs that both sides share, checked when the library is loaded
pack.py      puts weights into the layout that its products read
decoder.py   the decoder on top; a drop-in for nodes/native/model/decoder.py, which is the reference
"""
