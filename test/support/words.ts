/** Words that no text for operators uses: the field has its own for what they mean. */
export const privateWords =
  /\b(somebody|nobody|everybody|anybody|whoever|told|believed|second look|undone|undid|undo|taken back|rooms|mend(ed)?)\b/gi
