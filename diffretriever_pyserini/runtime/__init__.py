"""The machine: Java, FAISS, devices, memory, processors, threads and commands."""
