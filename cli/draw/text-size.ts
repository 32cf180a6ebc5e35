/**
 * How much room a text takes, without a browser to measure it. Widths are those of the widest common
 * sans-serif fonts (Verdana, DejaVu Sans), so that the text fits with any of them.
 */

/** Width of a text. @param size of the font in pixels. @returns pixels, rounded up. */
export function textWidth(text: string, size: number, bold = false): number {
  let ems = 0;
  for (const character of text) ems += widthOf(character);
  return Math.ceil(ems * size * (bold ? 1.13 : 1.02));
}

function widthOf(character: string): number {
  if (/[ijlI|.,:;'!]/.test(character)) return 0.4;
  if (/[ ftr()[\]/-]/.test(character)) return 0.46;
  if (/[mwMW@%—→]/.test(character)) return 1;
  if (/[A-Z#&+<>=~]/.test(character)) return 0.84;
  if (character <= '~') return 0.65;
  return 1.2;
}

/**
 * Breaks a text into lines, between words where possible.
 * @param width the most that a line may take, as `measure` measures it.
 */
export function wrap(text: string, width: number, measure: (text: string) => number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (measure(longer) <= width) {
      line = longer;
      continue;
    }
    if (line !== '') lines.push(line);
    line = word;
    while (measure(line) > width && [...line].length > 1) {
      const characters = [...line];
      let fitting = characters.length - 1;
      while (fitting > 1 && measure(characters.slice(0, fitting).join('')) > width) fitting--;
      lines.push(characters.slice(0, fitting).join(''));
      line = characters.slice(fitting).join('');
    }
  }
  return line === '' ? lines : [...lines, line];
}
