/** The ratios as a picture: bars to the left of 1 are where this suite is ahead. */

import type { Row } from './measure.ts';

const [width, left, right, rowHeight, top] = [900, 330, 90, 22, 50];
/** The axis ends here; longer bars are cut, and their figure tells. */
const longest = 2;

/** Draws the chart. @returns SVG. */
export function drawChart(rows: readonly Row[]): string {
  const compared = rows.filter((row) => row.ratio);
  const height = top + compared.length * rowHeight + 20;
  const x = (ratio: number) => left + (Math.min(ratio, longest) / longest) * (width - left - right);
  const bars = compared.map(({ name, ratio }, i) => {
    const y = top + i * rowHeight;
    const { value, low, high } = ratio!;
    const color = value <= 1 ? '#2a7f62' : '#b5542a';
    return [
      `<text x="${left - 8}" y="${y + 15}" text-anchor="end">${escapeText(name)}</text>`,
      `<rect x="${left}" y="${y + 3}" width="${(x(value) - left).toFixed(1)}" height="${rowHeight - 6}" fill="${color}"/>`,
      `<line x1="${x(low).toFixed(1)}" x2="${x(high).toFixed(1)}" y1="${y + 11}" y2="${y + 11}" stroke="#222" stroke-width="1.5"/>`,
      `<text x="${(Math.max(x(value), x(high)) + 6).toFixed(1)}" y="${y + 15}">${value.toFixed(2)}</text>`,
    ].join('');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="#fff"/>
<text x="${left}" y="20" font-size="14">Ratio to the reference plugins (1 is equal, less is faster)</text>
${[0, 0.5, 1, 1.5, 2].map((tick) => `<line x1="${x(tick)}" x2="${x(tick)}" y1="${top - 12}" y2="${height - 12}" stroke="${tick === 1 ? '#222' : '#ccc'}"/><text x="${x(tick)}" y="${top - 16}" text-anchor="middle">${tick}</text>`).join('\n')}
${bars.join('\n')}
</svg>
`;
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
