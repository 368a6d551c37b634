"""Write recipes/README.md from the cards of the recipes."""

from lit_compress.recipes import index_markdown, recipe_folder

if __name__ == "__main__":
    path = recipe_folder() / "README.md"
    path.write_text(index_markdown(), encoding="utf-8")
    print(path)
