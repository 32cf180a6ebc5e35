/** Cuts a stream into JSON objects, which OVSDB sends one after another with nothing in between. */

/** Far more than the answer to any request of this suite can have. In characters. */
const largestMessage = 64 * 1024 * 1024;

/** Takes text as it comes, and returns whole objects. */
export class JsonStream {
  private text = '';
  /** How far the text has been scanned. */
  private at = 0;
  private depth = 0;
  private isInString = false;

  /**
   * Takes more text.
   * @returns the objects that are complete now.
   * @throws Error when it is not a stream of JSON objects, or an object never ends.
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
      throw new Error('It is not a stream of JSON objects');
    return objects;
  }
}
