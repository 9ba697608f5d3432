"""What a scrape of Prometheus sees."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    """Return the samples of `registry`, as a scrape parses them: `{'name{label="value"}': value}`."""
    return samples(generate_latest(registry).decode())


def samples(text: str) -> dict[str, float]:
    """Return the samples in the text of a scrape that are ours; without the times when counters were created."""
    return {
        series(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("server_keys_") and not sample.name.endswith("_created")
    }


def series(name: str, labels: dict[str, str]) -> str:
    """Return the name of a series with its labels."""
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{shown}}}" if shown else name
