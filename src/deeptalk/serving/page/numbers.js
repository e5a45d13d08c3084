/** How long answers take: the last value and percentiles of the last twenty. */

const KEPT = 20;

/** The smallest value that at least `percent` % of the values don't exceed. */
export function percentile(values, percent) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)];
}

export class Times {
  #values = [];

  add(ms) {
    this.#values = [...this.#values, ms].slice(-KEPT);
  }

  /** `{last, p50, p95}` in milliseconds, or null before the first. */
  get summary() {
    if (!this.#values.length) return null;
    return { last: this.#values.at(-1), p50: percentile(this.#values, 50), p95: percentile(this.#values, 95) };
  }
}
