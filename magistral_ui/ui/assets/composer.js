// Keeps Enter in an empty composer from being sent: Gradio would draw the composer anew, over what is typed meanwhile.

const empty = (field) => !field.value.trim() && !document.querySelector("#box .thumbnails");

export function setUpComposer() {
  const hold = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || !event.target.matches?.("#box textarea")) return;
    if (!empty(event.target)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  addEventListener("keydown", hold, { capture: true });
}
