"""The log behind the rooms: one interface (`base`), kept in one process (`memory`) or in Kafka
(`kafka`).
"""
