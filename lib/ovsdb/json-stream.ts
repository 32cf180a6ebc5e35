/** Cuts a stream into JSON objects, which OVSDB sends one after another with nothing in between. */

/** Far above what a request of this suite can be answered with. In characters. */
const largestMessage = 64 * 1024 * 1024;

/** Takes text as it comes, and gives whole objects. */
export class JsonStream {
  private text = '';
  /** Up to where the text was looked at. */
  private at = 0;
  private depth = 0;
  private isInString = false;

  /**
   * Takes more text.
   * @returns the objects that are complete now.
   * @throws Error for what is no stream of JSON objects, or an object that never ends.
   */
  push(text: string): unknown[] {
    this.text += text;
    const objects: unknown[] = [];
    for (; this.at < this.text.length; this.at++) {
      const char = this.text[this.at];
      if (this.isInString) {
        if (char === '\\') this.at++;
        else if (char === '"') this.isInString = false;
      } else if (char === '"') this.isInString = true;
      else if (char === '{' || char === '[') this.depth++;
      else if ((char === '}' || char === ']') && --this.depth <= 0) {
        objects.push(JSON.parse(this.text.slice(0, this.at + 1)));
        this.text = this.text.slice(this.at + 1);
        this.at = -1;
        this.depth = 0;
      }
    }
    if (this.text.length > largestMessage || (this.depth === 0 && this.text.trim() !== ''))
      throw new Error('It is no stream of JSON objects');
    return objects;
  }
}
