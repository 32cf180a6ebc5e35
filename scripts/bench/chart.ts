/** The ratios as a picture: bars to the left of 1 are where this suite is ahead. */

import { ours, type Row } from './measure.ts';

const [width, left, right, barHeight, top] = [900, 330, 90, 13, 70];
const rowHeight = ours.length * barHeight + 6;
/** The axis ends here; longer bars are cut, and their figure tells. */
const longest = 2;
const colors = { agent: '#2a7f62', alone: '#7a86b8' } as const;
const labels = { agent: 'with the agent', alone: 'without' } as const;

/** Draws the chart. @returns SVG. */
export function drawChart(rows: readonly Row[]): string {
  const compared = rows.filter((row) => Object.keys(row.ratios).length > 0);
  const height = top + compared.length * rowHeight + 20;
  const x = (ratio: number) => left + (Math.min(ratio, longest) / longest) * (width - left - right);
  const bar = (row: Row, contender: (typeof ours)[number], y: number) => {
    const ratio = row.ratios[contender];
    if (!ratio) return '';
    const { value, interval: { low, high } = { low: value, high: value } } = ratio;
    const middle = y + barHeight / 2;
    return [
      `<rect x="${left}" y="${y + 1}" width="${(x(value) - left).toFixed(1)}" height="${barHeight - 2}" fill="${colors[contender]}"/>`,
      `<line x1="${x(low).toFixed(1)}" x2="${x(high).toFixed(1)}" y1="${middle}" y2="${middle}" stroke="#222" stroke-width="1.5"/>`,
      `<text x="${(Math.max(x(value), x(high)) + 6).toFixed(1)}" y="${y + 11}">${value.toFixed(2)}</text>`,
    ].join('');
  };
  const bars = compared.map((row, i) => {
    const y = top + i * rowHeight;
    return (
      `<text x="${left - 8}" y="${y + rowHeight / 2 + 1}" text-anchor="end">${escapeText(row.name)}</text>` +
      ours.map((contender, j) => bar(row, contender, y + j * barHeight)).join('')
    );
  });
  const legend = ours.map(
    (contender, i) =>
      `<rect x="${left + 150 * i}" y="29" width="12" height="12" fill="${colors[contender]}"/><text x="${left + 150 * i + 18}" y="39">${labels[contender]}</text>`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="#fff"/>
<text x="${left}" y="20" font-size="14">Ratio to the reference plugins (1 is equal, less is faster)</text>
${legend.join('\n')}
${[0, 0.5, 1, 1.5, 2].map((tick) => `<line x1="${x(tick)}" x2="${x(tick)}" y1="${top - 8}" y2="${height - 12}" stroke="${tick === 1 ? '#222' : '#ccc'}"/><text x="${x(tick)}" y="${top - 12}" text-anchor="middle">${tick}</text>`).join('\n')}
${bars.join('\n')}
</svg>
`;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
