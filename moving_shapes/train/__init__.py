"""How `vidlada-tiny` learns to answer questions about moving shapes: its first weights, and the tasks of its stages.

1. `cells`: the tower learns what is in each cell of a frame, and says it in the words' own embeddings.
2. `lessons`: the text model learns what happens to each shape over the frames (dense labels, which only training has),
   and to answer many questions about one video in one sequence.
3. `answers`: the objective itself, one question at a time, where the softmax leaves out what training never shows; the
   last stage, the general task "conversations", has all words in it.
"""
