"""Chaos: people who chat (`people`), what happens to replicas and brokers meanwhile (`sites`), and
who decides whether the promises were kept (`judge`). The tests are in `test_chaos.py`.
"""
